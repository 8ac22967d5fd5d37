"""Version v2 of the API. One kind per file; `registry` names them all and loads a kind's model when it is asked for."""
