"""What parallelz processes say to each other, as values. No sockets, clock or threads here."""
