"""The controller process: sockets, a clock and a recorder around the core."""
