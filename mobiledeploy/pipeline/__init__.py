"""The pipeline: the only package that joins the stages.

build -> fold -> equalize -> quantize -> export -> check parity
"""
