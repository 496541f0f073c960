"""The engine process: runs tasks in its main thread, obeys control in another."""
