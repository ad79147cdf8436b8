"""Does a hand handle an object here? Three answers with reasons: interaction, no interaction, uncertain (docs/curation/interaction.md)."""
