"""serving/api"""
