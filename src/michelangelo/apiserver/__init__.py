"""The verbs over a Store, and HTTP on top of them. Generic over kinds."""
