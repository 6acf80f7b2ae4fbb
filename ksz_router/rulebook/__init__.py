"""The rulebook: from a folder of text under review to a signed generation, and to facts.

``source`` reads the text, ``check`` says everything that is wrong with it, ``compile`` makes an
immutable LMDB generation named by its content, ``activation`` signs it and moves the pointer,
``snapshot`` reads it. A bad rulebook is refused whole; the running one goes on.
"""
