"""How messages travel. The only package that imports zmq."""
