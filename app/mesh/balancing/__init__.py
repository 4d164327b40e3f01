"""Whom to pick.

balancer    power of two choices with peak EWMA
"""
