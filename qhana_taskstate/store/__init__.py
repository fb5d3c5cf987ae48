"""The only writer of task state. Core statements on a connection that is handed in; nothing commits."""
