"""Quantum electrodynamics of the electron and the muon with a dark sector.

The dark photon Ap has a mass. By kinetic mixing it couples to electric charges with e epsilon. It couples to the dark
fermion chi with g_L and g_R, to the dark scalar phi with g_D. The Higgs boson that gives it its mass is hD, with the
vacuum expectation value v_D: m_Ap = g_D v_D.
"""
particles = (  # name, antiparticle, spin, mass ("" if massless)
    ("e", "e~", "1/2", "m_e"),
    ("mu", "mu~", "1/2", "m_mu"),
    ("chi", "chi~", "1/2", "m_chi"),
    ("phi", "phi~", "0", "m_phi"),
    ("hD", "hD", "0", "m_hD"),
    ("A", "A", "1", ""),
    ("Ap", "Ap", "1", "m_Ap"),
)
vertices = (  # fields that flow in, psibar and psi first; then (number and couplings, structure) for each rule
    (("e~", "e", "A"), ("-e", "gamma")),
    (("mu~", "mu", "A"), ("-e", "gamma")),
    (("e~", "e", "Ap"), ("-e*epsilon", "gamma")),
    (("mu~", "mu", "Ap"), ("-e*epsilon", "gamma")),
    (("chi~", "chi", "Ap"), ("g_L", "gamma P_L"), ("g_R", "gamma P_R")),
    (("chi~", "chi", "hD"), ("-y_D", "unit")),
    (("phi~", "phi", "Ap"), ("g_D", "SSV")),
    (("phi~", "phi", "Ap", "Ap"), ("2*g_D^2", "metric")),
    (("hD", "Ap", "Ap"), ("2*g_D^2*v_D", "metric")),
    (("hD", "hD", "Ap", "Ap"), ("2*g_D^2", "metric")),
    (("hD", "hD", "hD"), ("-3*m_hD^2*v_D^(-1)", "number")),
)
