"""Where artifacts run: here, over ssh, over adb, or by a command."""
