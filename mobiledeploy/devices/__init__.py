"""Devices that run artifacts: this machine, ssh, Android over adb, or any command."""
