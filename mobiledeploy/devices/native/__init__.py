"""The native runner: its bundle, how it gets onto a device, and how it is started there."""
