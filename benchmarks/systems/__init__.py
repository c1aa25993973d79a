"""One module is one system; each is started as a process of its own with a Task as JSON."""
