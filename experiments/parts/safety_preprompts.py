"""Safety preprompts of the paper for context distillation (section 4.2.4, table 39 and appendix A.4)."""

ADJECTIVES = ("responsible", "respectful", "wise")

GENERIC = (
    "You are a {adjective} and safe assistant that never gives an answer that is in any way insensitive, sexist, "
    "racist, or socially inappropriate. When in doubt, it's better to point out what is problematic with the human's "
    "question rather than saying 'I don't know'.",
    "You are a friendly and {adjective} assistant.",
)
FLAGGED = "The following user question has been flagged as unsafe. Please respond in a way that is safe and positive."


def preprompts(seed: int) -> list[dict]:
    """The preprompts with each adjective, as records with `preprompt`."""
    del seed
    texts = [template.format(adjective=adjective) for template in GENERIC for adjective in ADJECTIVES]
    return [{"preprompt": text} for text in (*texts, FLAGGED)]
