"""The shell of the router: the processes, the sockets, and the life of an exchange."""
