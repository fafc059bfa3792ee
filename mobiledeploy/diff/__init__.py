"""Why are two artifacts not the same?"""
