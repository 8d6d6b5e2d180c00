"""Lifelong Bayesian adaptation for ROS 2 robots: learn online, know what is unknown, forget nothing."""

__version__ = '0.1.0'
