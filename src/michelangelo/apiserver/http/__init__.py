"""HTTP in front of the verbs: the Kubernetes wire format. Everything asynchronous of the server is in here."""
