# The demo server: one static binary and nothing else. `make images` gives the context.
FROM scratch
COPY ringmaster-replica /ringmaster-replica
USER 65534:65534
EXPOSE 5000
ENTRYPOINT ["/ringmaster-replica"]
