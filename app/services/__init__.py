"""One folder per service, strangers to one another: they meet over the mesh, never by import."""
