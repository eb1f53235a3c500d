"""What training will take, found out before anything is rented."""
