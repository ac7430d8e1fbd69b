"""The event log on a replicated stream of NATS JetStream. Needs the extra ``nats``."""
