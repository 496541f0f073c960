"""A cluster in one thread: real decisions and links, simulated network, time and processes."""
