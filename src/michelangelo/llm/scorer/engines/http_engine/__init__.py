"""An engine behind HTTP: any server that speaks OpenAI's API for completions, chats and embeddings.

    config     what can be set, checked before anything is sent
    engine     the `Engine`: requests in, completions out, threads in between
    calls      one request's attempts: when to send, what to try again, what to give up
    pacing     rates, pauses that the server asks for, and how many calls at once
    budget     dollars: spent, promised, and whether one more request fits
    transport  bytes over a connection, with deadlines and limits
    wire       requests → JSON, JSON → completions
    events     an answer in pieces (server-sent events) → the same JSON as in one piece

Nothing is imported here.
"""
