"""Does the artifact compute what the network computes?"""
