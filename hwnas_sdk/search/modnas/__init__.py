"""MODNAS: one search whose result answers any preference on any device.

Source: Sukthankar et al., Multi-objective Differentiable Neural Architecture Search (ICLR 2025).
torch is needed; nothing outside this package imports it at start-up.
"""
