"""Lifelong Bayesian adaptation for ROS 2 robots: learn online, know the unknown, keep it all."""

__version__ = '0.1.0'
