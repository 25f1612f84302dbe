"""The way of a request: lanes, deadlines and the fence, over connections of HTTP/1.1 that are made here."""
