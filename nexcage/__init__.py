"""nexcage: containers on Proxmox VE as state machines."""
