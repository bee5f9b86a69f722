# The daemon: one static binary and nothing else. `make images` gives the context.
FROM scratch
COPY ringmaster /ringmaster
ENTRYPOINT ["/ringmaster"]
CMD ["serve"]
