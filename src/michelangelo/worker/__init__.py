"""What runs inside one task process. It talks to nothing but its executor and the blob store."""
