"""Where arrays live: the mesh of devices, the logical axes laid over it, and the machine's own settings."""
