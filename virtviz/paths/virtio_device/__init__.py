"""A virtio-net device as such: queues, receive filter, commands, configuration; whoever runs it."""
