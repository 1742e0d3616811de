"""pipelines/samples"""
