"""The stages joined: build, deploy, check, rebuild, reproduce."""
