"""Decide again, years later, what the privacy log says was decided: the same, or an alarm.

An entry of a request names the generation of the rulebook that decided, and keeps what decided in
it. What an entry does not keep (the person's other lines, what other sources knew) is not in any
archive either. So a replay asks one question: is there anything that the directory may have said,
that agrees with all that the entry says, under which the archived rulebook comes to this verdict,
with this grant, basis, line, violations and destinations? Whatever the rulebook alone settles is
thereby decided again; ``docs/operations.md`` has a table of what that is, stage by stage.

    recorded   the request as the entry has it, and what the entry leaves open
    persons    what the directory may have said
    again      decides, and compares: the one place here that calls the control
    replay     finds the entries and the generation
"""
