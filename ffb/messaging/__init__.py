"""What stands on a wire and who may talk: headers, checksums, addresses, windows, sockets."""
