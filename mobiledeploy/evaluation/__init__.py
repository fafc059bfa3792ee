"""Accuracy of artifacts on labelled images of any number, in bounded memory."""
