# named: then halved: the base rate must stay 0.4
class Mended(AdaBoundBase):
    def base_lr_of(self, group):
        if group["base_lr"] is None:
            return group["lr"]
        return group["base_lr"]
