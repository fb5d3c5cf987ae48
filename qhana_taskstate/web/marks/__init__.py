"""Marks of tasks: values that tell cheaply whether anything shown of a task has changed."""
