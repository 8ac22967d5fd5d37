"""Replicas: each holds one engine, reads its shards itself and writes its parts itself.

    channel        how a replica and the driver talk: small messages, no rows
    worker         what a replica does, wherever it runs
    process_main   a replica as a process
    starting       replicas from the driver's side: a thread, a process, or an actor of Ray
    on_ray         a replica as an actor of Ray

Messages are JSON objects with a `type`. To a replica: `shard` (work), `none` (no work for now), `stop` (end when it is
done). From it: `ready` (the engine is open), `want` (give me a shard), `progress` (also the sign of life), `done` (a
shard is committed), `failed` (the engine is lost, or the job cannot go on), `bye`. `lost` is put in by the driver's
side when it is gone.
"""
