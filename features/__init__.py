"""What is known, and when: canonical tables, the catalogue, what each user has done, and the features made of them."""
