"""Instruction counting under QEMU."""
