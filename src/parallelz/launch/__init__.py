"""How the processes of a cluster are started, watched and stopped, here or elsewhere."""
