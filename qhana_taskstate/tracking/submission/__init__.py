"""Starting work: check it, commit it, publish it."""
