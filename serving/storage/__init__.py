"""serving/storage"""
