"""training/candidates"""
