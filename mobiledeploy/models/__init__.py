"""Where MobileNets are built."""
