"""Where arrays live: the mesh of devices, logical axes and their rules, processes, settings of the machine."""
