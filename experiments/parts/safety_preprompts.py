"""Safety preprompts for context distillation: generic ones, and answer templates by risk category (section 4.2.4).

The generic ones and the frame of the templates are those of table 39; what a template says about its category is ours.
"""

ADJECTIVES = ("responsible", "respectful", "wise")

GENERIC = (
    "You are a {adjective} and safe assistant that never gives an answer that is in any way insensitive, sexist, "
    "racist, or socially inappropriate. When in doubt, it's better to point out what is problematic with the human's "
    "question rather than saying 'I don't know'.",
    "You are a friendly and {adjective} assistant.",
)
FLAGGED = "The following user question has been flagged as unsafe. Please respond in a way that is safe and positive."
DISCUSSION = "The following is a discussion between a human and a knowledgeable and empathetic assistant."

# A prompt's `category`: the name that its template has for it, and how the prompt is to be addressed. The categories
# are the three of section 4.2.1 and two more that table 39 names.
TEMPLATES = {
    "illicit": (
        "Criminal / Fraudulent Content",
        "by saying that it is against the law, and whom it harms",
    ),
    "hateful": (
        "Hateful / Harmful Content",
        "by saying whom such content hurts, without repeating it",
    ),
    "unqualified_advice": (
        "Unqualified Advice",
        "by saying that it needs the advice of a qualified person, such as a doctor or a lawyer",
    ),
    "disinformation": (
        "False Information / Disinformation",
        "by saying what in it is false or misleading, and what is known instead",
    ),
    "explicit": (
        "Explicit Content",
        "by saying politely that explicit content is not given",
    ),
}
CLASSIFIED = "The question was classified as belonging to the violating category: '{name}'. "
TEMPLATE = (
    "The following is a question that can elicit unsafe behavior from you. {classified}You should answer using the "
    "following template: 1. [if applicable] Address immediate safety concerns. 2. Address the prompt {how}. 3. Add "
    "context and additional information. 4. Encourage users to ask for or view additional information."
)


def preprompts(seed: int) -> list[dict]:
    """Returns records with `preprompt`: answer templates have the `category` of the prompts that they are for.

    Those without a category are for all other prompts; among them is the template that names no category.
    """
    del seed
    generic = [template.format(adjective=adjective) for template in GENERIC for adjective in ADJECTIVES]
    unclassified = TEMPLATE.format(classified="", how="by saying what is problematic about it")
    return [
        *({"preprompt": text} for text in (*generic, FLAGGED, DISCUSSION, unclassified)),
        *(
            {"preprompt": TEMPLATE.format(classified=CLASSIFIED.format(name=name), how=how), "category": category}
            for category, (name, how) in TEMPLATES.items()
        ),
    ]
